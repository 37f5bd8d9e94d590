"""`python3 -m xcat_avs` is `avsimage`."""

from xcat_avs.cli import main

if __name__ == "__main__":
    main()
