"""One room per market; a sub-package here is a registered market (its ``SPEC``)."""
