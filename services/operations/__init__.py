"""What an operator does with the content of all services: compare it, rebuild copies, carry it elsewhere."""
