#include <stdio.h>

int
main(void)
{
	puts("cat of the fixture, built from " __FILE__);
	return (0);
}
