#include <stdio.h>

int
main(void)
{
	puts("loader of the fixture, built from " __FILE__);
	return (0);
}
