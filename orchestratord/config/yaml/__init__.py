"""From a file's text to nodes that know their place: YAML 1.2, strict, with references found.

Text comes in; nodes, or problems with line and column, go out: `syntax` and `scalars` say what is
allowed, `document` builds the tree of `nodes`, `references` resolve what its texts refer to.
"""
