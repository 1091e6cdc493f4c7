package recipes

import "testing"

func TestAWholeFstabIsCheckedLineByLine(t *testing.T) {
	if found := CheckFstab("/etc/fstab", []byte("# none\n\nproc /proc proc defaults 0 0\n")); len(found) > 0 {
		t.Errorf("got %v", found)
	}
	found := CheckFstab("/etc/fstab", []byte("proc /proc proc defaults 0 0\ns:/x /x nfs rw, ro 0 0\n"))
	if len(found) != 1 || found[0].Pos.Line != 2 || found[0].Pos.File != "/etc/fstab" {
		t.Errorf("got %v", found)
	}
}

func TestAWholeFstabMountsNothingTwice(t *testing.T) {
	found := CheckFstab("o/etc/fstab", []byte("s:/x /x nfs rw 0 0\ntmpfs /tmp tmpfs rw 0 0\ns:/y /x/ nfs rw 0 0\n"))
	if len(found) != 1 || found[0].Pos.Line != 3 || found[0].Message != `"/x/" is mounted twice; first at o/etc/fstab:1:1` {
		t.Errorf("got %v", found)
	}
}
