/*
 * reread: reads files over NFS through handles that stay open, over and over,
 * and compares every byte with a local copy.
 *
 *   reread URL LOCAL-FOLDER NAME...
 *
 * Prints "round N" after each time that all files were read. Any error, and any
 * wrong byte, ends it with status 1 and a sentence; SIGTERM ends it with "done"
 * after the round. Needs libnfs, which connects anew where a server went away.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <nfsc/libnfs.h>

enum { FILES = 16, PIECE = 32768 };

static volatile sig_atomic_t stop;

static void on_term(int sig) { (void)sig; stop = 1; }

struct file {
	const char *name;
	struct nfsfh *far;
	char *want;
	size_t size;
};

static int slurp(struct file *f, const char *folder)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", folder, f->name);
	FILE *in = fopen(path, "rb");
	if (!in || fseek(in, 0, SEEK_END)) return -1;
	f->size = ftell(in);
	rewind(in);
	f->want = malloc(f->size);
	size_t n = fread(f->want, 1, f->size, in);
	fclose(in);
	return n == f->size ? 0 : -1;
}

static int reread(struct nfs_context *nfs, struct file *f)
{
	static char got[PIECE];
	for (size_t at = 0; at < f->size;) {
		int n = nfs_pread(nfs, f->far, at, sizeof got, got);
		if (n <= 0) {
			fprintf(stderr, "reading %s at %zu: %d, %s\n", f->name, at, n, nfs_get_error(nfs));
			return -1;
		}
		if (at + n > f->size || memcmp(got, f->want + at, n)) {
			fprintf(stderr, "wrong bytes in %s after %zu\n", f->name, at);
			return -1;
		}
		at += n;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct file files[FILES];
	int n = argc - 3;
	struct nfs_context *nfs = nfs_init_context();
	struct nfs_url *url;
	if (n < 1 || n > FILES || !nfs || !(url = nfs_parse_url_dir(nfs, argv[1]))) {
		fprintf(stderr, "usage: reread URL LOCAL-FOLDER NAME...\n");
		return 2;
	}
	signal(SIGTERM, on_term);
	if (nfs_mount(nfs, url->server, url->path)) {
		fprintf(stderr, "mounting: %s\n", nfs_get_error(nfs));
		return 1;
	}
	for (int i = 0; i < n; i++) {
		files[i].name = argv[3 + i];
		if (slurp(&files[i], argv[2])) { perror(files[i].name); return 1; }
		if (nfs_open(nfs, files[i].name, O_RDONLY, &files[i].far)) {
			fprintf(stderr, "opening %s: %s\n", files[i].name, nfs_get_error(nfs));
			return 1;
		}
	}
	for (int round = 1; !stop; round++) {
		for (int i = 0; i < n; i++)
			if (reread(nfs, &files[i])) return 1;
		printf("round %d\n", round);
		fflush(stdout);
	}
	printf("done\n");
	return 0;
}
