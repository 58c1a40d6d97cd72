"""Where the documentation explains what the daemon says: `doc_links` makes the addresses.

An answer of the API, a line of the log and a finding of `doctor` go in; the address of the page and
anchor comes out. Tests hold that each of these anchors exists.
"""
