"""What images of environments were made of, who says so, and whether that is true."""
