#include <stdio.h>

int
main(void)
{
	puts("sh of the fixture, built from " __FILE__);
	return (0);
}
