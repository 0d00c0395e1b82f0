"""The command line, pictures and process settings: programs on top of the library."""
