"""What is said to people, by the commands and by the page alike: the state in one line, counts, sizes, ages."""
