"""Who gets which GPU, when, and why not: pure functions of plain data; the time is passed in."""
