"""scripts/bench: supafs and its peers, measured in turns. See __main__.py for the flags."""
