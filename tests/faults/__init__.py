"""What can happen to a run: disks that fail, processes that are killed, files that are not what was written.

All of it, by `make faults`; tests/test_store.py has a sample.
"""
