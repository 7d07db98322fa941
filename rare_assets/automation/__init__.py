"""What starts runs, and where: jobs, sensors, schedules, the instance and its daemon."""
