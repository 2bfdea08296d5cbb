"""The Claude side: whoever answers a turn, behind one small interface (`interface`)."""
