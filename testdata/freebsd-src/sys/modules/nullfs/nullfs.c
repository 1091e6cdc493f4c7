const char *
nullfs_name(void)
{
	return ("nullfs");
}
