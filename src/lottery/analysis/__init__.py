"""WHAT CAME OUT? Numbers from the frames of runs. Draws nothing, and needs no torch."""
