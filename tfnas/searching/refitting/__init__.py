"""Hardware-in-the-loop: networks timed as a whole on the device, refitted, certified."""
