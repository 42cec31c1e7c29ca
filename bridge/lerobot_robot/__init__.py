"""Any of our drivers as a robot of LeRobot's, with limits and life cycle; needs `lerobot`."""
