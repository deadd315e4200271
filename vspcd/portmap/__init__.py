"""The persistent port map and its back ends."""
