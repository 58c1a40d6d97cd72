"""The config folder, read into one immutable snapshot: files, positions, merging, validation."""
