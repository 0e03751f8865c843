"""Everything from nothing to the bundle: the other rooms' commands, one after the other."""
