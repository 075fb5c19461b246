"""What a run costs: energy, time, memory, CO2e, and the machine they were measured on."""
