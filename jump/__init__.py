"""The service ``ssh``: people's way to their own running servers, and to nothing else.

It takes public keys, gives no shell, and opens tunnels (``ssh -J``) to the names of servers of the
person's own. The hub says who may in where; what goes through a tunnel is enciphered end to end.
"""
