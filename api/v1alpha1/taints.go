package v1alpha1

// TaintUnhealthy is the key of the taint, of effect NoSchedule, that a device
// gets in its ResourceSlice for each problem it has. The value is the problem's
// reason, such as "LinkDown". A claim that tolerates the key with operator
// Exists is given such devices too.
const TaintUnhealthy = "eks-hybrid-dra/unhealthy"
