//! How what is borrowed or shared is archived: as what owns the same.

use crate::types::{Blob, LeaseId, Revision, Sub};
use rkyv::rancor::Fallible;
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, SerializeWith};
use rkyv::{Archive, Archived, Place, Serialize};

/// As a vector.
pub struct AsVec;

impl<T: Archive> ArchiveWith<&[T]> for AsVec {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;

    fn resolve_with(field: &&[T], resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_slice(field, resolver, out);
    }
}

impl<T: Serialize<S>, S: Fallible + Allocator + Writer + ?Sized> SerializeWith<&[T], S> for AsVec {
    fn serialize_with(field: &&[T], serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(field, serializer)
    }
}

impl ArchiveWith<Blob> for AsVec {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve_with(field: &Blob, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_slice(field, resolver, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> SerializeWith<Blob, S> for AsVec {
    fn serialize_with(field: &Blob, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(field, serializer)
    }
}

/// As the number that it is.
pub struct AsNumber;

macro_rules! numbers {
    ($($name:ident($number:ty)),*) => {$(
        impl ArchiveWith<$name> for AsNumber {
            type Archived = Archived<$number>;
            type Resolver = ();

            fn resolve_with(field: &$name, (): (), out: Place<Self::Archived>) {
                field.0.resolve((), out);
            }
        }

        impl<S: Fallible + ?Sized> SerializeWith<$name, S> for AsNumber {
            fn serialize_with(_: &$name, _: &mut S) -> Result<(), S::Error> {
                Ok(())
            }
        }
    )*};
}

numbers!(Revision(u64), Sub(u32), LeaseId(i64));
