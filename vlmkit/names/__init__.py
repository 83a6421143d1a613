"""The names that people bring from other toolkits. Standard library only: the parser asks here."""
