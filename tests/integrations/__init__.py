"""Other people's machinery around ours: compilers, processes, trainers. Minutes, so not in `make test`."""
