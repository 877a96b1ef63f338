"""What connects asyncnotify with other programs: each module is an API of its own."""
