package dcerpc

// service is an interface that attackers and administrators use, with its operations in order of their numbers as far as they
// matter (MS-SCMR, MS-TSCH, MS-NRPC, MS-SAMR, MS-LSAD, MS-DRSR, MS-RPRN, MS-RRP, MS-EFSR, MS-SRVS, MS-WKST, C706 appendices).
type service struct {
	name       string
	procedures []string
}

func id(a uint32, b, c uint16, rest ...byte) (u [16]byte) {
	u[0], u[1], u[2], u[3] = byte(a>>24), byte(a>>16), byte(a>>8), byte(a)
	u[4], u[5], u[6], u[7] = byte(b>>8), byte(b), byte(c>>8), byte(c)
	copy(u[8:], rest)
	return u
}

var services = map[[16]byte]service{
	id(0x367abb81, 0x9844, 0x35f1, 0xad, 0x32, 0x98, 0xf0, 0x38, 0x00, 0x10, 0x03): {"svcctl", []string{
		"CloseServiceHandle", "ControlService", "DeleteService", "LockServiceDatabase", "QueryServiceObjectSecurity",
		"SetServiceObjectSecurity", "QueryServiceStatus", "SetServiceStatus", "UnlockServiceDatabase", "NotifyBootConfigStatus",
		"ScSetServiceBitsW", "ChangeServiceConfigW", "CreateServiceW", "EnumDependentServicesW", "EnumServicesStatusW", "OpenSCManagerW",
		"OpenServiceW", "QueryServiceConfigW", "QueryServiceLockStatusW", "StartServiceW", "GetServiceDisplayNameW", "GetServiceKeyNameW",
		"ScSetServiceBitsA", "ChangeServiceConfigA", "CreateServiceA", "EnumDependentServicesA", "EnumServicesStatusA", "OpenSCManagerA",
		"OpenServiceA", "QueryServiceConfigA", "QueryServiceLockStatusA", "StartServiceA", "GetServiceDisplayNameA", "GetServiceKeyNameA",
	}},
	id(0x1ff70682, 0x0a51, 0x30e8, 0x07, 0x6d, 0x74, 0x0b, 0xe8, 0xce, 0xe9, 0x8b): {"atsvc", []string{
		"NetrJobAdd", "NetrJobDel", "NetrJobEnum", "NetrJobGetInfo",
	}},
	id(0x86d35949, 0x83c9, 0x4044, 0xb4, 0x24, 0xdb, 0x36, 0x32, 0x31, 0xfd, 0x0c): {"ITaskSchedulerService", []string{
		"SchRpcHighestVersion", "SchRpcRegisterTask", "SchRpcRetrieveTask", "SchRpcCreateFolder", "SchRpcSetSecurity",
		"SchRpcGetSecurity", "SchRpcEnumFolders", "SchRpcEnumTasks", "SchRpcEnumInstances", "SchRpcGetInstanceInfo",
		"SchRpcStopInstance", "SchRpcStop", "SchRpcRun", "SchRpcDelete", "SchRpcRename",
	}},
	id(0x12345678, 0x1234, 0xabcd, 0xef, 0x00, 0x01, 0x23, 0x45, 0x67, 0xcf, 0xfb): {"netlogon", []string{
		"NetrLogonUasLogon", "NetrLogonUasLogoff", "NetrLogonSamLogon", "NetrLogonSamLogoff", "NetrServerReqChallenge",
		"NetrServerAuthenticate", "NetrServerPasswordSet", "NetrDatabaseDeltas", "NetrDatabaseSync", "NetrAccountDeltas",
		"NetrAccountSync", "NetrGetDCName", "NetrLogonControl", "NetrGetAnyDCName", "NetrLogonControl2", "NetrServerAuthenticate2",
		"NetrDatabaseSync2", "NetrDatabaseRedo", "NetrLogonControl2Ex", "NetrEnumerateTrustedDomains", "DsrGetDcName",
		"NetrLogonGetCapabilities", "NetrLogonSetServiceBits", "NetrLogonGetTrustRid", "NetrLogonComputeServerDigest",
		"NetrLogonComputeClientDigest", "NetrServerAuthenticate3", "DsrGetDcNameEx", "DsrGetSiteName", "NetrLogonGetDomainInfo",
		"NetrServerPasswordSet2", "NetrServerPasswordGet",
	}},
	id(0x12345778, 0x1234, 0xabcd, 0xef, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab): {"lsarpc", []string{"LsarClose"}},
	id(0x12345778, 0x1234, 0xabcd, 0xef, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xac): {"samr", []string{
		"SamrConnect", "SamrCloseHandle", "SamrSetSecurityObject", "SamrQuerySecurityObject", "SamrShutdownSamServer",
		"SamrLookupDomainInSamServer", "SamrEnumerateDomainsInSamServer", "SamrOpenDomain",
	}},
	id(0xe3514235, 0x4b06, 0x11d1, 0xab, 0x04, 0x00, 0xc0, 0x4f, 0xc2, 0xdc, 0xd2): {"drsuapi", []string{
		"DRSBind", "DRSUnbind", "DRSReplicaSync", "DRSGetNCChanges", "DRSUpdateRefs", "DRSReplicaAdd", "DRSReplicaDel",
		"DRSReplicaModify", "DRSVerifyNames", "DRSGetMemberships", "DRSInterDomainMove", "DRSGetNT4ChangeLog", "DRSCrackNames",
	}},
	id(0x12345678, 0x1234, 0xabcd, 0xef, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab): {"spoolss", nil},
	id(0x338cd001, 0x2244, 0x31f1, 0xaa, 0xaa, 0x90, 0x00, 0x38, 0x00, 0x10, 0x03): {"winreg", []string{
		"OpenClassesRoot", "OpenCurrentUser", "OpenLocalMachine", "OpenPerformanceData", "OpenUsers", "BaseRegCloseKey",
		"BaseRegCreateKey", "BaseRegDeleteKey", "BaseRegDeleteValue", "BaseRegEnumKey", "BaseRegEnumValue", "BaseRegFlushKey",
	}},
	id(0x4b324fc8, 0x1670, 0x01d3, 0x12, 0x78, 0x5a, 0x47, 0xbf, 0x6e, 0xe1, 0x88): {"srvsvc", nil},
	id(0x6bffd098, 0xa112, 0x3610, 0x98, 0x33, 0x46, 0xc3, 0xf8, 0x7e, 0x34, 0x5a): {"wkssvc", nil},
	id(0xe1af8308, 0x5d1f, 0x11c9, 0x91, 0xa4, 0x08, 0x00, 0x2b, 0x14, 0xa0, 0xfa): {"epmapper", []string{
		"ept_insert", "ept_delete", "ept_lookup", "ept_map",
	}},
	id(0xafa8bd80, 0x7d8a, 0x11c9, 0xbe, 0xf4, 0x08, 0x00, 0x2b, 0x10, 0x29, 0x89): {"mgmt", []string{
		"inq_if_ids", "inq_stats", "is_server_listening", "stop_server_listening", "inq_princ_name",
	}},
	id(0x3919286a, 0xb10c, 0x11d0, 0x9b, 0xa8, 0x00, 0xc0, 0x4f, 0xd9, 0x2e, 0xf5): {"dssetup", []string{
		"DsRolerGetPrimaryDomainInformation", "DsRolerDnsNameToFlatName", "DsRolerDcAsDc", "DsRolerDcAsReplica", "DsRolerDemoteDc",
		"DsRolerGetDcOperationProgress", "DsRolerGetDcOperationResults", "DsRolerCancel", "DsRolerServerSaveStateForUpgrade",
		"DsRolerUpgradeDownlevelServer", "DsRolerAbortDownlevelServerUpgrade",
	}},
	id(0x00000143, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46): {"IRemUnknown2", []string{
		"QueryInterface", "AddRef", "Release", "RemQueryInterface", "RemAddRef", "RemRelease", "RemQueryInterface2",
	}},
	id(0x000001a0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46): {"IRemoteSCMActivator", []string{
		"Opnum0NotUsedOnWire", "Opnum1NotUsedOnWire", "Opnum2NotUsedOnWire", "RemoteGetClassObject", "RemoteCreateInstance",
	}},
	id(0x99fcfec4, 0x5260, 0x101b, 0xbb, 0xcb, 0x00, 0xaa, 0x00, 0x21, 0x34, 0x7a): {"IOXIDResolver", []string{
		"ResolveOxid", "SimplePing", "ComplexPing", "ServerAlive", "ResolveOxid2", "ServerAlive2",
	}},
	id(0xc681d488, 0xd850, 0x11d0, 0x8c, 0x52, 0x00, 0xc0, 0x4f, 0xd9, 0x0f, 0x7e): {"efsrpc", []string{
		"EfsRpcOpenFileRaw", "EfsRpcReadFileRaw", "EfsRpcWriteFileRaw", "EfsRpcCloseRaw", "EfsRpcEncryptFileSrv",
	}},
	id(0x4fc742e0, 0x4a10, 0x11cf, 0x82, 0x73, 0x00, 0xaa, 0x00, 0x4a, 0xe6, 0x73): {"netdfs", nil},
	id(0x00020400, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46): {"IDispatch", []string{
		"QueryInterface", "AddRef", "Release", "GetTypeInfoCount", "GetTypeInfo", "GetIDsOfNames", "Invoke",
	}},
}
