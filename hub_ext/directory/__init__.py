"""Talking to the directory (LDAP): who somebody is, and which groups they are in.

``client.Directory`` is the way in; the hub's hooks over it are in ``hub_ext.authenticator``.
"""
