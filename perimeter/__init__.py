"""The perimeter: who reaches whom. Owns one nftables table of a site, and keeps it in place.

Standard library alone, and nothing else of ours: its image has no more than Python and nft.
"""
