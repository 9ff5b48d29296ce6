//! stub
use crate::base::*; use crate::format::*; use std::sync::Arc; use std::fs::File; use std::path::Path;
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct StagingError;
impl StagingError { pub fn class(&self)->ErrorClass{ErrorClass::Internal} }
type R<T>=Result<T,StagingError>;
#[derive(Debug)] pub struct StagingArea; #[derive(Debug)] pub struct StagedFile;
pub struct StagingLimits{pub quota:u64,pub reserve:u64}
pub struct StagingUsage{pub files:u64,pub bytes:u64,pub quota:u64}
pub trait Admission { fn can_drain(&self)->bool; }
#[derive(Debug)] pub enum StagedReadError<E>{Staging(StagingError),Base(E)}
impl StagingArea { pub fn open(_:&Path,_:StagingLimits)->R<Arc<Self>>{todo!()}
 pub fn create(self:&Arc<Self>,_:u64)->R<StagedFile>{todo!()} pub fn recover(self:&Arc<Self>,_:&StagedContent)->R<StagedFile>{todo!()}
 pub fn discard_unclaimed(&self)->R<u64>{todo!()} pub fn usage(&self)->StagingUsage{todo!()} pub fn admit(&self,_:u64,_:&dyn Admission)->R<()>{todo!()} }
impl StagedFile { pub fn id(&self)->StagingId{todo!()} pub fn size(&self)->u64{todo!()} pub fn write(&self,_:u64,_:&[u8])->R<()>{todo!()}
 pub fn read<E>(&self,_:ContentRange,_:&mut [u8],_:&mut dyn FnMut(ContentRange,&mut [u8])->Result<(),E>)->Result<(),StagedReadError<E>>{todo!()}
 pub fn truncate(&self,_:u64)->R<()>{todo!()} pub fn make_hole(&self,_:ContentRange)->R<()>{todo!()} pub fn allocate(&self,_:ContentRange)->R<()>{todo!()}
 pub fn seek(&self,_:u64,_:bool,_:&dyn Fn(u64,bool)->Option<u64>)->Option<u64>{todo!()} pub fn allocated(&self,_:&dyn Fn(ContentRange)->u64)->u64{todo!()}
 pub fn is_changed(&self)->bool{todo!()} pub fn publish(&self)->R<(StagedContent,u64)>{todo!()} pub fn sync(&self)->R<()>{todo!()} pub fn sync_filesystem(&self)->R<()>{todo!()}
 pub fn published_is_durable(&self,_:u64){} pub fn backing(&self)->Option<Arc<File>>{todo!()} pub fn is_passthrough(&self)->bool{todo!()}
 pub fn refresh(&self)->R<Option<Timestamp>>{todo!()} pub fn end_passthrough(&self)->R<()>{todo!()} pub fn discard(&self){} }
