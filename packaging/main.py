"""The directory of the packages, run by Python: it comes first in sys.path, before the distribution's own modules."""

from xcat_avs.__main__ import main

main()
