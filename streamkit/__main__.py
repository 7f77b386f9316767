"""`python -m streamkit`."""

import sys

if __name__ == "__main__":
    try:
        from streamkit.cli import main

        code = main()
    except KeyboardInterrupt:  # while the first modules were being loaded
        code = 130
    sys.exit(code)
