"""Files are read and written here, one module for each format."""
