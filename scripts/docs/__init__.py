"""The programs that make parts of docs/, and what the package and the site have of it."""
