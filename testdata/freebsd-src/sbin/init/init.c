#include <stdio.h>

int
main(void)
{
	puts("init of the fixture, built from " __FILE__);
	return (0);
}
