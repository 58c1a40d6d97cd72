"""Makes all parts of docs/ that programs make, but the pictures: `python -m scripts.docs`.

A test fails if a part is not up to date. The pictures: `python -m scripts.docs.screenshots`.
"""

from scripts.docs import api_reference, outputs, schema_files

if __name__ == "__main__":
    api_reference.main()
    schema_files.main()
    outputs.main()
