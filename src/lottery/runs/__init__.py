"""WHAT IS KEPT? Run directories, what fills them and what carries it out."""
