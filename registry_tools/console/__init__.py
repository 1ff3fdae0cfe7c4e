"""The web pages of `registry-tools console`, for people who approve, promote and roll back.

Each page is made on the server, without scripts. Each request to the registry is sent with the name and
the password of the user who is signed in, so the registry decides what the user may do.
"""
