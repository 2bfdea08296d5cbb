"""Where the two columns meet: one file a method group; a handler makes one engine call and holds no state."""
