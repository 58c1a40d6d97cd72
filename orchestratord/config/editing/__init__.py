"""Writing lists of endpoints back to their files, and nothing else in these.

editor    what is asked for, and in which order it is done     records   what comes of it
content   one file with one content, and its list              target    the file on disk
held      to whom secrets and references go already            masks     what people see of them
marks     where things stand in a text                         matching  which item is which
splice    one list in a text replaced by another one           render    values as YAML
block, flow   the two styles of writing
"""
