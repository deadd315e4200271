"""A simulated ESXi host, to try and to test a concentrator without vSphere."""
