"""`python -m lottery`: what the shell starts as `lottery`."""

import sys

from lottery_command import main

if __name__ == "__main__":
    sys.exit(main())
