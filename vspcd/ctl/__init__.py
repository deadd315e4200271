"""vspcctl: the operator's tool. Talks to the daemon through its control socket only."""
