"""Figures of the studies: functions from tables to a drawn figure, one module for each study."""
