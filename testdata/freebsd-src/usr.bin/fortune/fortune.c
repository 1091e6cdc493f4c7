#include <stdio.h>

int
main(void)
{
	puts("fortune of the fixture, built from " __FILE__);
	return (0);
}
