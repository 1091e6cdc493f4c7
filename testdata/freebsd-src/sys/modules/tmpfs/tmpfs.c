const char *
tmpfs_name(void)
{
	return ("tmpfs");
}
