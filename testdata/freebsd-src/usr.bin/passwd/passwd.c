#include <stdio.h>

int
main(void)
{
	puts("passwd of the fixture, built from " __FILE__);
	return (0);
}
