"""A file or folder per subcommand of the command line."""
