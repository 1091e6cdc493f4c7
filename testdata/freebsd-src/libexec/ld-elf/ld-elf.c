#include <stdio.h>

int
main(void)
{
	puts("ld-elf of the fixture, built from " __FILE__);
	return (0);
}
